"""`persona sae`: autoencoders of a model pair: train, measure, rank, screen, explain."""

import typer

from persona.cli.contents import Command, Contents
from persona.cli.sae.explain_command import explain
from persona.cli.sae.fidelity_command import fidelity
from persona.cli.sae.rank_command import rank
from persona.cli.sae.screen_command import screen
from persona.cli.sae.train_command import train

__all__ = ["sae_app"]

HELP = """Latents of a model and its fine-tune: train a sparse autoencoder, rank, explain.

\b
Examples:
  persona sae rank
  persona sae explain 17 402
"""

sae_app = typer.Typer(
    name="sae",
    cls=Contents,
    help=HELP,
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

sae_app.command(cls=Command, short_help="Train autoencoders on both models.")(train)
sae_app.command(cls=Command, short_help="How well an autoencoder covers both models.")(fidelity)
sae_app.command(cls=Command, short_help="Which latents change most.")(rank)
sae_app.command(cls=Command, short_help="Which latents cause the persona.")(screen)
sae_app.command(cls=Command, short_help="A page on each latent.")(explain)
