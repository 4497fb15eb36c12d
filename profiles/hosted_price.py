"""What the model costs from a provider, read from `profiles/prices/hosted.yaml`."""

from glmplan.benchmark import HostedPrice
from glmplan.profiles.store import shipped


def hosted_price(provider: str = "zai") -> HostedPrice:
    """The price of a million tokens of prompt and of output, with its source."""
    row = shipped("prices", "hosted.yaml")[provider]
    return HostedPrice(
        name=str(row["name"]),
        currency=str(row["currency"]),
        input_per_million=float(row["input_per_million"]),
        output_per_million=float(row["output_per_million"]),
        source=str(row["source"]),
    )
