"""`glmplan cluster`: several machines as one service."""

import typer

from glmplan.commands import cluster_plan, cluster_service, cluster_up

app = typer.Typer(
    name="cluster",
    help="Plan and run several machines as one service, on Ray Serve.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command("plan")(cluster_plan.plan)
app.command("up")(cluster_up.up)
app.command("status")(cluster_service.status)
app.command("down")(cluster_service.down)
