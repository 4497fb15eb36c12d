"""HTML that cannot be broken out of: text becomes an element's content or an attribute only through escaping."""

import html
from typing import Final

from glmplan.noun import noun

_VOID: Final = frozenset({"meta", "br", "link"})


@noun
class Html:
    """Markup that is safe to put on a page as it stands."""

    text: str


def element(tag: str, *children: "Html | str", **attributes: str) -> Html:
    """`<tag ...>children</tag>`; a `str` among the children is text and is escaped.

    Args:
        tag: a name written in this project, never one from outside.
        children: markup, or text.
        attributes: names (`class_` is `class`, other underscores are dashes) and values, which are escaped.
    """
    spelled = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(value)}"' for name, value in attributes.items()
    )
    if tag in _VOID:
        return Html(text=f"<{tag}{spelled}>")
    return Html(text=f"<{tag}{spelled}>{joined(*children).text}</{tag}>")


def joined(*children: "Html | str") -> Html:
    """Children one after the other."""
    return Html(text="".join(child.text if isinstance(child, Html) else html.escape(child) for child in children))


def table(head: tuple[str, ...], rows: "list[tuple[Html | str, ...]]", *, class_: str = "") -> Html:
    """A table that scrolls by itself where the screen is narrower; the first cell of a row names it."""
    head_row = element("tr", *(element("th", cell, scope="col") for cell in head))
    body = (
        element("tr", element("th", row[0], scope="row"), *(element("td", cell) for cell in row[1:])) for row in rows
    )
    filled = element("table", element("thead", head_row), element("tbody", *body), class_=class_)
    return element("div", filled, class_="scroll", tabindex="0")


def raw(tag: str, text: str, **attributes: str) -> Html:
    """`<script>` or `<style>`, whose content is not escaped by HTML's rules.

    Raises:
        ValueError: the content would end the element.
    """
    if f"</{tag}" in text.lower() or "<!--" in text:
        message = f"the content would end its <{tag}>"
        raise ValueError(message)
    return Html(text=element(tag, **attributes).text.replace(f"></{tag}>", f">{text}</{tag}>"))
