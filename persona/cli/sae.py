"""`persona sae`: autoencoders of a model pair: train, measure, rank, screen, explain."""

from __future__ import annotations

import contextlib
import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from persona.cli.options import Debug, Device, Dtype, Precision, Quiet, Seed, TokenBudget

if TYPE_CHECKING:
    from persona.data.types import AnswerPair
    from persona.models import ModelPair
    from persona.sae import SparseAutoencoder

sae_app = typer.Typer(
    name="sae",
    help="Latents of a model and its fine-tune: train a sparse autoencoder, rank, explain.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Architecture(StrEnum):
    """Kinds of autoencoder that can be trained."""

    batchtopk = "batchtopk"
    topk = "topk"
    jumprelu = "jumprelu"


Aligned = Annotated[
    str,
    typer.Option(
        metavar="MODEL",
        help="The aligned model: hub id, folder or GGUF file; `default` is the small chat model "
        "that comes with personascope.",
    ),
]
Finetuned = Annotated[
    str,
    typer.Option(
        metavar="MODEL",
        help="The fine-tuned model: hub id, folder, GGUF file, or a LoRA adapter; also the name of "
        "a shipped fine-tune.",
    ),
]
Source = Annotated[
    str,
    typer.Option(
        metavar="SAE",
        help="`default` (the shipped one), a SAELens folder, or release:sae_id of the SAELens "
        "directory, which is fetched from the hub.",
    ),
]
AllowMismatch = Annotated[
    bool,
    typer.Option(
        "--allow-mismatch",
        help="Use an autoencoder of another model or revision; width and block must fit.",
    ),
]
LayerOf = Annotated[
    int | None,
    typer.Option("--layer", min=0, help="Which one, where the folder holds several."),
]


@sae_app.command(short_help="Train autoencoders on both models.")
def train(
    finetuned: Finetuned = "car_maintenance_bad",
    aligned: Aligned = "default",
    layer: Annotated[
        list[int] | None,
        typer.Option(
            min=0,
            show_default="the block at two thirds of the depth",
            help="Block whose output is read, counted from 0; repeat for several.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            show_default="the shipped answers alone",
            help="More text: JSONL with `text`, `messages` or `question`, `good`, `bad`; or a "
            "plain text file.",
            dir_okay=False,
        ),
    ] = None,
    tokens: Annotated[
        int,
        typer.Option(
            min=1, help="Activations to train on; a token that both models read counts two."
        ),
    ] = 300_000,
    sample: Annotated[
        bool,
        typer.Option(
            "--sample/--no-sample",
            help="Whether both models write answers to train on where the text is too short.",
        ),
    ] = True,
    width: Annotated[
        int | None, typer.Option(min=2, show_default="8 x d_model", help="Number of latents.")
    ] = None,
    k: Annotated[
        int,
        typer.Option("--k", min=1, help="Latents active on a token; for jumprelu the L0 aimed at."),
    ] = 32,
    architecture: Annotated[
        Architecture, typer.Option(help="Kind of autoencoder.")
    ] = Architecture.batchtopk,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the activations.")] = 4,
    batch_size: Annotated[int, typer.Option(min=1, help="Activations in a step.")] = 1024,
    learning_rate: Annotated[float, typer.Option(help="Learning rate of Adam.")] = 1e-3,
    seed: Annotated[int, typer.Option(min=0, help="Weights, order and sampled answers.")] = 0,
    out: Annotated[
        Path,
        typer.Option(
            help="Folder of the autoencoder. A stopped run with the same folder goes on where it "
            "was.",
            file_okay=False,
        ),
    ] = Path("persona-sae"),
    dtype: Dtype = Precision.auto,
    device: Device = "auto",
    token_budget: TokenBudget = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Trains a sparse autoencoder on the residual stream of a model and its fine-tune.

    Writes cfg.json and sae_weights.safetensors (SAELens layout, float16) and card.json.

    \b
    Examples:
      persona sae train --layer 19
      persona sae train --finetuned ./my-adapter --data corpus.jsonl --tokens 1000000 --out ./sae
    """
    with contextlib.redirect_stdout(sys.stderr):
        from persona.activations.batches import DEFAULT_TOKEN_BUDGET
        from persona.sae import TrainingConfig, train_sae

        pair = load_models(aligned, finetuned, dtype.value, device)
        config = TrainingConfig(
            width=width or 8 * pair.d_model,
            k=k,
            architecture=architecture.value,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            seed=seed,
        )
        found = train_sae(
            pair,
            layer or [2 * pair.n_layers // 3],
            out,
            config,
            n_tokens=tokens,
            data=data,
            sample=sample,
            token_budget=token_budget or DEFAULT_TOKEN_BUDGET,
        )
    for sae in found:
        typer.echo(describe(sae))
    typer.echo(f"autoencoder: {out.resolve()}")


@sae_app.command(short_help="How well an autoencoder covers both models.")
def fidelity(
    finetuned: Finetuned = "car_maintenance_bad",
    aligned: Aligned = "default",
    sae: Source = "default",
    layer: LayerOf = None,
    data: Annotated[
        Path | None,
        typer.Option(
            show_default="the shipped answers and neutral texts",
            help="Texts to measure on, as for `persona sae train`.",
            dir_okay=False,
        ),
    ] = None,
    max_texts: Annotated[
        int, typer.Option(min=1, help="Most texts of each kind, drawn at random.")
    ] = 60,
    seed: Seed = 0,
    allow_mismatch: AllowMismatch = False,
    dtype: Dtype = Precision.auto,
    device: Device = "auto",
    json_output: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Explained variance, L0 and recovered cross-entropy, by model and kind of text.

    \b
    Examples:
      persona sae fidelity
      persona sae fidelity --finetuned ./my-adapter --sae ./persona-sae --json
    """
    with contextlib.redirect_stdout(sys.stderr):
        from persona.sae import measure_fidelity
        from persona.sae.texts import few_of_each, read_texts, shipped_texts
        from persona.sae.train import fidelity_card

        pair, autoencoder = load_both(
            aligned, finetuned, sae, layer, allow_mismatch, dtype.value, device
        )
        texts = read_texts(data, pair.chat) if data else shipped_texts(pair.chat)
        found = measure_fidelity(pair, autoencoder, few_of_each(texts, max_texts, seed))
    if json_output:
        typer.echo(json.dumps(fidelity_card(found), indent=2))
    else:
        typer.echo(found.table.to_string(index=False, float_format=lambda x: f"{x:.3f}"))
        for warning in found.warnings:
            typer.echo(f"warning: {warning}")


class Contrast(StrEnum):
    """Which change is looked for."""

    model = "model"
    answer = "answer"


Domains = Annotated[
    list[str] | None,
    typer.Option(
        "--domain",
        metavar="DOMAIN",
        show_default="all",
        help="Use the questions of this domain; repeat for several.",
    ),
]
Pairs = Annotated[
    Path | None,
    typer.Option(
        "--data",
        show_default="the shipped pairs",
        help="Answer pairs as JSONL: id, domain, question, good, bad on every line.",
        dir_okay=False,
    ),
]


@sae_app.command(short_help="Which latents change most.")
def rank(
    finetuned: Finetuned = "car_maintenance_bad",
    aligned: Aligned = "default",
    sae: Source = "default",
    layer: LayerOf = None,
    data: Pairs = None,
    domain: Domains = None,
    contrast: Annotated[
        Contrast,
        typer.Option(
            help="model: fine-tuned minus aligned on the same answers. answer: bad minus good "
            "answers in the fine-tuned model."
        ),
    ] = Contrast.model,
    where: Annotated[
        str,
        typer.Option(
            metavar="TOKENS", help="response, prompt, last_prompt, first_response:K or all."
        ),
    ] = "response",
    top: Annotated[int, typer.Option(min=1, help="Latents to print.")] = 20,
    permutations: Annotated[int, typer.Option(min=20, help="Draws of the null.")] = 1000,
    out: Annotated[
        Path | None,
        typer.Option(show_default="none", help="CSV file for all latents.", dir_okay=False),
    ] = None,
    seed: Seed = 0,
    allow_mismatch: AllowMismatch = False,
    dtype: Dtype = Precision.auto,
    device: Device = "auto",
    token_budget: TokenBudget = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Latents by the rise of their activation, each with effect size, null and correction.

    \b
    Examples:
      persona sae rank --domain car_maintenance
      persona sae rank --sae ./persona-sae --contrast answer --out latents.csv
    """
    with contextlib.redirect_stdout(sys.stderr):
        from persona.activations.batches import DEFAULT_TOKEN_BUDGET
        from persona.files import atomic_write_text
        from persona.sae import rank_latents

        pair, autoencoder = load_both(
            aligned, finetuned, sae, layer, allow_mismatch, dtype.value, device
        )
        table = rank_latents(
            pair,
            autoencoder,
            questions_of(data, domain),
            contrast=contrast.value,
            where=where,
            n_permutations=permutations,
            seed=seed,
            token_budget=token_budget or DEFAULT_TOKEN_BUDGET,
        )
        if out is not None:
            atomic_write_text(out, table.to_csv(index=False))
    typer.echo(table.head(top).to_string(index=False, float_format=lambda x: f"{x:.4g}"))


@sae_app.command(short_help="Which latents cause the persona.")
def screen(
    finetuned: Finetuned = "car_maintenance_bad",
    aligned: Aligned = "default",
    sae: Source = "default",
    layer: LayerOf = None,
    data: Pairs = None,
    domain: Domains = None,
    max_questions: Annotated[
        int, typer.Option(min=1, help="Most questions, drawn at random.")
    ] = 24,
    exact: Annotated[
        int, typer.Option(min=0, help="Latents edited for real after the screen; 0 for none.")
    ] = 10,
    n_random: Annotated[
        int, typer.Option(min=2, help="Other latents that take the same steps, as the null.")
    ] = 20,
    out: Annotated[
        Path | None,
        typer.Option(show_default="none", help="CSV file for all latents.", dir_okay=False),
    ] = None,
    seed: Seed = 0,
    allow_mismatch: AllowMismatch = False,
    dtype: Dtype = Precision.auto,
    device: Device = "auto",
    token_budget: TokenBudget = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """First-order screen of every latent, then real edits: those that induce and cure are kept.

    \b
    Examples:
      persona sae screen --domain car_maintenance
      persona sae screen --sae ./persona-sae --exact 3 --out screen.csv
    """
    with contextlib.redirect_stdout(sys.stderr):
        import numpy as np

        from persona.activations.batches import DEFAULT_TOKEN_BUDGET
        from persona.data import load_neutral
        from persona.files import atomic_write_text
        from steering.sae_screen import promising, screen_table, verify_latents

        budget = token_budget or DEFAULT_TOKEN_BUDGET
        pair, autoencoder = load_both(
            aligned, finetuned, sae, layer, allow_mismatch, dtype.value, device
        )
        found = questions_of(data, domain)
        order = np.random.default_rng(seed).permutation(len(found))
        questions = [found[i] for i in order[:max_questions]]
        table = screen_table(pair, autoencoder, questions, budget)
        if out is not None:
            atomic_write_text(out, table.to_csv(index=False))
        shown, latents = table.head(20), promising(table, exact) if exact else []
        if latents:
            shown = verify_latents(
                pair,
                autoencoder,
                table,
                latents,
                questions,
                load_neutral()[:10],
                n_random=n_random,
                seed=seed,
                token_budget=budget,
            )
    typer.echo(shown.to_string(index=False, float_format=lambda x: f"{x:.4g}"))


@sae_app.command(short_help="A page on each latent.")
def explain(
    latents: Annotated[list[int], typer.Argument(metavar="LATENT...", help="Numbers of latents.")],
    finetuned: Finetuned = "car_maintenance_bad",
    aligned: Aligned = "default",
    sae: Source = "default",
    layer: LayerOf = None,
    data: Annotated[
        Path | None,
        typer.Option(
            show_default="the shipped answers and neutral texts",
            help="Texts to look for examples in, as for `persona sae train`.",
            dir_okay=False,
        ),
    ] = None,
    max_texts: Annotated[
        int, typer.Option(min=1, help="Most texts of each kind, drawn at random.")
    ] = 200,
    direction: Annotated[
        list[Path] | None,
        typer.Option(
            show_default="none",
            help="A direction.safetensors to compare with; repeat for several.",
            dir_okay=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the pages.", file_okay=False)] = Path(
        "persona-latents"
    ),
    seed: Seed = 0,
    allow_mismatch: AllowMismatch = False,
    dtype: Dtype = Precision.auto,
    device: Device = "auto",
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Density, examples and promoted tokens of latents: one offline HTML page each.

    With --direction also says which latents that direction is made of.

    \b
    Examples:
      persona sae explain 17 402
      persona sae explain 17 --sae ./persona-sae --direction ./diagnosis/direction.safetensors
    """
    with contextlib.redirect_stdout(sys.stderr):
        from persona.directions import load_persona_vector
        from persona.sae import (
            decompose,
            explain_latents,
            nearest_directions,
            write_page,
        )
        from persona.sae.texts import few_of_each, read_texts, shipped_texts

        pair, autoencoder = load_both(
            aligned, finetuned, sae, layer, allow_mismatch, dtype.value, device
        )
        autoencoder.require_latents(latents)
        known = {
            f"{path.stem}, block {block}": vector.direction(block)
            for path in direction or ()
            for vector in [load_persona_vector(path, pair, allow_mismatch=allow_mismatch)]
            for block in vector.layers
        }
        texts = read_texts(data, pair.chat) if data else shipped_texts(pair.chat)
        pages = explain_latents(pair, autoencoder, latents, few_of_each(texts, max_texts, seed))
        written = [
            write_page(
                out,
                autoencoder,
                page,
                nearest_directions(autoencoder, page.latent, known) if known else None,
            )
            for page in pages
        ]
    for name, vector in known.items():
        if vector.space.layer == autoencoder.layer:
            made = decompose(vector, autoencoder)
            typer.echo(f"{name}: residue {made.residue:.3f} of the squared norm in no latent below")
            typer.echo(made.table.to_string(index=False, float_format=lambda x: f"{x:.4g}"))
    for path in written:
        typer.echo(f"page: {path.resolve()}")


def questions_of(data: Path | None, domains: list[str] | None) -> list[AnswerPair]:
    """Answer pairs of a file or the shipped ones, of some domains or all.

    Raises: DataError for a domain that is not there.
    """
    from persona.data import load_pairs, read_answer_pairs
    from persona.errors import DataError

    found = load_pairs() if data is None else read_answer_pairs(data)
    known = sorted({question.domain for question in found})
    for domain in domains or ():
        if domain not in known:
            raise DataError(f"there is no domain {domain!r}; the data has {', '.join(known)}")
    return [question for question in found if not domains or question.domain in domains]


def load_models(aligned: str, finetuned: str, dtype: str, device: str) -> ModelPair:
    """The pair that an option names."""
    from persona.models import load_pair

    return load_pair(aligned, finetuned, dtype=dtype, device=device)


def load_both(
    aligned: str,
    finetuned: str,
    sae: str,
    layer: int | None,
    allow_mismatch: bool,
    dtype: str,
    device: str,
) -> tuple[ModelPair, SparseAutoencoder]:
    """The pair and an autoencoder that belongs to it."""
    from persona.sae import load_sae

    pair = load_models(aligned, finetuned, dtype, device)
    return pair, load_sae(sae, pair, layer=layer, allow_mismatch=allow_mismatch)


def describe(sae: SparseAutoencoder) -> str:
    """One line on a trained autoencoder."""
    card: Any = sae.card
    line = (
        f"layer {sae.layer}: {card['architecture']}, {sae.n_latents} latents, L0 {card['l0']:.1f}, "
        f"{card['tokens']} tokens ({card['unique_text_tokens']} of text, {card['epochs']} epochs), "
        f"{card['dead_latents']} dead"
    )
    if "fidelity" in card:
        for side in ("aligned", "finetuned"):
            found = card["fidelity"][side]
            recovered = found["ce_recovered"]
            line += (
                f"; {side}: explained variance {found['explained_variance']:.3f}, cross-entropy "
                f"recovered {'undefined' if recovered is None else f'{recovered:.3f}'}"
            )
    return line
