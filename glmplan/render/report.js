// Draws the figures of a report: in the reader's colours, and again when those or the width change.
"use strict";
(() => {
  const NARROW = 520;
  const { colours, figures } = JSON.parse(document.getElementById("figures").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const config = { displayModeBar: false, responsive: true, showTips: false };

  // Figures carry the light colours; the style sheet says what each is now.
  const recoloured = (value, style) => {
    if (typeof value === "string") {
      return value in colours ? style.getPropertyValue(colours[value]).trim() : value;
    }
    if (Array.isArray(value)) return value.map((item) => recoloured(item, style));
    if (value !== null && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, recoloured(item, style)]));
    }
    return value;
  };

  const merged = (base, more) => {
    const both = { ...base };
    for (const [key, item] of Object.entries(more)) {
      const nested = item !== null && typeof item === "object" && !Array.isArray(item);
      both[key] = nested ? merged(base[key] ?? {}, item) : item;
    }
    return both;
  };

  const draw = () => {
    const style = getComputedStyle(document.documentElement);
    for (const figure of figures) {
      const node = document.getElementById(`plot-${figure.key}`);
      const layout = node.clientWidth < NARROW ? merged(figure.layout, figure.narrow) : figure.layout;
      Plotly.react(node, recoloured(figure.traces, style), recoloured(layout, style), config);
    }
  };

  let wasNarrow = null;
  const drawIfChanged = () => {
    const isNarrow = document.documentElement.clientWidth < NARROW;
    if (isNarrow !== wasNarrow) draw();
    wasNarrow = isNarrow;
  };
  dark.addEventListener("change", draw);
  window.addEventListener("resize", drawIfChanged);
  drawIfChanged();
})();
