"""Human text from nouns; the only place that knows GiB, colour and width."""
