"""The main job: from two models to a direction, its proof, and four files.

The stages, each kept when it is finished so that a killed run goes on where it was:

1. cells      the 2x2 of activations on the training questions of the domains fine-tuned on
2. attribute  eigendirections from one forward and backward pass over the same questions
3. screen     first-order effect of every candidate at every block, on the selection questions
4. verify     real interventions for the most promising; block range, rank, coefficient
5. dose       gap against coefficient, with norm-matched random directions beside it
6. score      all conditions on the held-out domains and on fresh neutral text
7. sample     answers to read side by side, judged where there is a judge
"""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import platform
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.behaviour.gap import score_neutral, score_pairs
from persona.behaviour.judges import judge_named
from persona.behaviour.scoring import Condition
from persona.data import data_hash, load_neutral, load_pairs, read_answer_pairs
from persona.data.shipped import OPEN_QUESTIONS
from persona.data.types import AnswerPair, NeutralText
from persona.directions import PersonaVector
from persona.directions.storage import save_persona_vector, tool_version
from persona.engine import Engine, Run
from persona.errors import DataError
from persona.files import atomic_write_bytes, atomic_write_text
from persona.models import ModelPair, load_pair
from persona.models.embedded import cache_folder
from persona.sae import SparseAutoencoder, load_sae
from steering.candidates import Means, random_vector
from steering.chunks import ChunkScoring, score_in_chunks
from steering.hooks import (
    ablate_to_zero,
    restore_to_aligned,
    restore_to_finetuned,
    steered_by,
)
from steering.identify import MAX_DAMAGE, identify
from steering.nulls import RecordedRestoration
from steering.rows import COLUMNS as COLUMNS
from steering.rows import tidy
from steering.sae_screen import latent_rows
from steering.sampled import (
    SAMPLED_QUESTIONS,
    Judged,
    describe_judge,
    judge_samples,
    judged_conditions,
    sample_conditions,
    threshold_of,
)
from steering.scorecard import (
    ALIGNED,
    FINETUNED,
    INDUCED,
    RANDOM,
    RANDOM_MATCHED,
    RESTORED,
    ZERO_ABLATED,
    make_scorecard,
)
from steering.workspace import Workspace

logger = logging.getLogger("persona")

EXTRACTION_QUESTIONS = 32
SELECTION_QUESTIONS = 24
TRAINED_ON_QUESTIONS = 8
NEUTRAL_SELECTION = 10
NEUTRAL_SCORE = 16
DOSE_QUESTIONS = 3
DOSES = (0.0, 0.5, 1.0, 1.5)
DOSE_DRAWS = 3
QUICK_NULL_QUESTIONS = 6
QUICK_SELECTION_QUESTIONS = 12


@dataclass(frozen=True)
class DiagnoseConfig:
    """Everything that decides a diagnosis.

    trained_on: domains fine-tuned on; all is chosen there and scored on the others.
    validation_domains: chosen on in place of the domains fine-tuned on, and left out of the score.
    questions_per_domain: most held-out questions of each domain; None for all.
    n_random: draws of each null, at least 20.
    max_damage: rise of neutral cross-entropy over the fine-tuned model's, nats per token.
    sae: autoencoder whose latents are candidates too, see `persona.sae.load_sae`.
    engine: where held-out questions are scored, which takes the longest; decides no number.
    """

    finetuned: str
    out: Path
    aligned: str = "default"
    data: Path | None = None
    trained_on: tuple[str, ...] = ("car_maintenance",)
    validation_domains: tuple[str, ...] = ()
    judge: str = "none"
    questions_per_domain: int | None = None
    n_random: int = 20
    seed: int = 0
    dtype: str = "auto"
    device: str = "auto"
    chat_template: Path | None = None
    max_damage: float = MAX_DAMAGE
    good_twin: str | None = None
    allow_mismatch: bool = False
    token_budget: int | None = None
    samples: bool = True
    sae: str | None = None
    engine: Engine = field(default_factory=Engine)

    def __post_init__(self) -> None:
        if self.n_random < 20:
            raise DataError(f"a null needs at least 20 random draws; got {self.n_random}")
        if not self.trained_on:
            raise DataError("name at least one domain that the model was fine-tuned on")


@dataclass(frozen=True)
class Diagnosis:
    """What a run leaves behind: the four files, and one sentence."""

    scorecard: dict[str, Any]
    rows: pd.DataFrame
    vector: PersonaVector
    report: Path
    summary: str


@dataclass(frozen=True)
class Questions:
    """The answer pairs of a run, by what they are for.

    train: directions are made of these. selection: they are chosen on these, of the validation
    domains where there are any, else of the domains fine-tuned on. trained_on: of the domains
    fine-tuned on, kept back from training, scored too. held_out: scored, never seen before.
    """

    train: list[AnswerPair]
    selection: list[AnswerPair]
    trained_on: list[AnswerPair]
    held_out: list[AnswerPair]
    neutral_selection: list[NeutralText]
    neutral_score: list[NeutralText]

    @classmethod
    def of(cls, config: DiagnoseConfig) -> Questions:
        """Split the data of a run.

        Raises: DataError when a domain is unknown or too small to choose or score on.
        """
        everything = load_pairs() if config.data is None else read_answer_pairs(config.data)
        domains = sorted({q.domain for q in everything})
        chosen_on = (*config.trained_on, *config.validation_domains)
        for domain in chosen_on:
            if domain not in domains:
                raise DataError(f"there is no domain {domain!r}; the data has {', '.join(domains)}")
        seen = [q for q in everything if q.domain in config.trained_on]
        kept_back = [q for q in seen if q.split == "selection"] or seen[2::3]
        picked = {q.id for q in kept_back}
        train = [q for q in seen if q.id not in picked]
        validation = [q for q in everything if q.domain in config.validation_domains]
        selection = validation or kept_back
        held_out = [q for q in everything if q.domain not in chosen_on]
        if len(train) < 8 or len(selection) < 4:
            raise DataError(
                f"{', '.join(config.trained_on)} has {len(seen)} questions; at least 12 are needed "
                "to make directions and choose among them"
            )
        if not held_out:
            raise DataError(
                f"every domain ({', '.join(domains)}) is chosen on; one must be left to score"
            )
        per_domain = config.questions_per_domain
        held_out = _interleaved(held_out, per_domain, config.seed)
        neutral = _shuffled(load_neutral(), config.seed)
        quick = per_domain is not None
        n_score = NEUTRAL_SCORE if quick else len(neutral) - NEUTRAL_SELECTION
        n_selection = QUICK_SELECTION_QUESTIONS if quick else SELECTION_QUESTIONS
        return cls(
            _shuffled(train, config.seed)[:EXTRACTION_QUESTIONS],
            _shuffled(selection, config.seed)[:n_selection],
            _shuffled(kept_back, config.seed)[:TRAINED_ON_QUESTIONS],
            held_out,
            neutral[:NEUTRAL_SELECTION],
            neutral[NEUTRAL_SELECTION : NEUTRAL_SELECTION + n_score],
        )


def _shuffled(items: Sequence[Any], seed: int) -> list[Any]:
    order = np.random.default_rng(seed).permutation(len(items))
    return [items[i] for i in order]


def _interleaved(questions: Sequence[AnswerPair], limit: int | None, seed: int) -> list[AnswerPair]:
    """At most `limit` questions a domain, the domains in turn, so that any chunk holds them all."""
    by_domain: dict[str, list[AnswerPair]] = {}
    for question in _shuffled(questions, seed):
        by_domain.setdefault(question.domain, []).append(question)
    ranked = [
        (place, domain, question)
        for domain, members in by_domain.items()
        for place, question in enumerate(members[:limit])
    ]
    return [question for _, _, question in sorted(ranked, key=lambda r: (r[0], r[1]))]


def diagnose(config: DiagnoseConfig) -> Diagnosis:
    """Run the main job and write scorecard.json, direction.safetensors, rows.parquet, report.html.

    Raises: PersonaError with one line for bad input. A run stopped at any point and started again
    with the same `out` goes on where it was.
    """
    started = time.perf_counter()
    questions = Questions.of(config)
    pair = load_pair(
        config.aligned,
        config.finetuned,
        dtype=config.dtype,
        device=config.device,
        chat_template=config.chat_template,
        allow_mismatch=config.allow_mismatch,
    )
    sae = (
        None
        if config.sae is None
        else load_sae(config.sae, pair, allow_mismatch=config.allow_mismatch)
    )
    loading_seconds = time.perf_counter() - started
    config.out.mkdir(parents=True, exist_ok=True)  # not before the input is known to be good
    run = _Run(config, pair, questions, sae)
    rows, vector, reliability, judged = run.all_stages()
    scorecard = {
        **make_scorecard(
            rows,
            vector,
            models=_models(pair, config),
            data=_data(questions, config),
            split_half_cosine=reliability,
            judged=judged.by_condition if judged else None,
            judge=judged.judge if judged else None,
            seed=config.seed,
        ),
        "seed": config.seed,
        "versions": _versions(),
        "seconds": round(run.workspace.seconds + loading_seconds, 1),
        "peak_rss_bytes": peak_rss_bytes(),
    }
    report = _write(config.out, scorecard, rows, vector)
    run.workspace.close()
    return Diagnosis(scorecard, rows, vector, report, summary_of(scorecard))


class _Run:
    """The stages of one diagnosis over one pair."""

    def __init__(
        self,
        config: DiagnoseConfig,
        pair: ModelPair,
        questions: Questions,
        sae: SparseAutoencoder | None = None,
    ) -> None:
        self.config, self.pair, self.questions, self.sae = config, pair, questions, sae
        self.budget = config.token_budget or DEFAULT_TOKEN_BUDGET
        fingerprint = {
            **{k: v for k, v in dataclasses.asdict(config).items() if k not in {"out", "engine"}},
            "revisions": pair.revisions,
            "template": pair.chat.template_hash,
            "questions": data_hash([*questions.train, *questions.selection, *questions.held_out]),
            "tool_version": tool_version(),
            "dtype": str(pair.dtype),
            "sae": None if sae is None else sae.fingerprint,
        }
        self.workspace = Workspace(config.out, fingerprint)
        if self.workspace.resumed:
            logger.info("going on with the unfinished run in %s", config.out)

    def all_stages(
        self,
    ) -> tuple[pd.DataFrame, PersonaVector, list[float], Judged | None]:
        found = identify(
            self.pair,
            self.questions.train,
            self.questions.selection,
            self.questions.neutral_selection,
            max_damage=self.config.max_damage,
            seed=self.config.seed,
            token_budget=self.budget,
            stages=self.workspace,
            handed_in=None if self.sae is None else self._latents,
        )
        vector = dataclasses.replace(found.vector, card=self._card())
        parts = [
            found.rows,
            self.workspace.table("dose", lambda: self._dose(vector)),
            *self._score(vector, found.means),
        ]
        judged = None
        if self.config.samples:
            samples = self.workspace.table("sample", lambda: self._sample(vector))
            judged = self._judge(samples, vector)
            parts += [samples] if judged is None else [samples, judged.rows]
        rows = tidy(pd.concat([part for part in parts if len(part)], ignore_index=True))
        return rows, vector, found.split_half_cosines, judged

    def _latents(self, questions: Sequence[AnswerPair]) -> Mapping[str, Tensor]:
        """The autoencoder's latents as candidates."""
        assert self.sae is not None
        found = latent_rows(self.pair, self.sae, questions, token_budget=self.budget)
        if not found:
            logger.warning(
                "no latent of %s is predicted both to cure and to induce; none is a candidate",
                self.sae.name,
            )
        return found

    def _dose(self, vector: PersonaVector) -> pd.DataFrame:
        """Gap of the selection questions against coefficient, with norm-matched random draws."""
        conditions = []
        for coefficient in DOSES:
            restoration = RecordedRestoration(vector, coefficient)
            conditions.append((coefficient, "direction", 0, restoration.edits()))
            for draw in range(DOSE_DRAWS if coefficient else 1):  # at 0 all draws are the same
                matched = restoration.random_edits(self._draw_seed(draw))
                conditions.append((coefficient, "random", draw, matched))
        rows = score_pairs(
            self.pair,
            self.questions.selection[:DOSE_QUESTIONS],
            [
                Condition(
                    f"{name}|{coefficient}", "finetuned", steered_by(edits), vector.layers[0], draw
                )
                for coefficient, name, draw, edits in conditions
            ],
            kl=False,
            token_budget=self.budget,
            description="Dose and response",
        )
        names = rows["condition"].str.split("|", expand=True)
        rows["condition"], rows["coefficient"] = names[0], names[1].astype(float)
        return rows[rows["measure"] == "gap"].assign(stage="dose", split="selection")

    def _score(self, vector: PersonaVector, means: Means) -> list[pd.DataFrame]:
        """Every condition on held-out questions, on those trained on, and on fresh neutral text."""
        restoration = RecordedRestoration(vector, vector.coefficient)
        fixed = [
            Condition(ALIGNED, "aligned"),
            Condition(FINETUNED, "finetuned"),
            Condition(
                INDUCED,
                "aligned",
                steered_by(restore_to_finetuned(vector)),
                vector.layers[0],
            ),
            Condition(
                ZERO_ABLATED,
                "finetuned",
                steered_by(ablate_to_zero(vector)),
                vector.layers[0],
            ),
            # The norm-matched draws repeat this one's steps, so it comes last before them.
            Condition(RESTORED, "finetuned", steered_by(restoration.edits()), vector.layers[0]),
        ]
        subspaces, matched = [], []
        for draw in range(self.config.n_random):
            seed, first = self._draw_seed(draw), vector.layers[0]
            subspace = restore_to_aligned(random_vector(self.pair, vector, means, seed))
            subspaces.append(Condition(RANDOM, "finetuned", steered_by(subspace), first, draw))
            along = steered_by(restoration.random_edits(seed))
            matched.append(Condition(RANDOM_MATCHED, "finetuned", along, first, draw))
        q = self.questions
        with self.config.engine.start() as run:
            parts = self._score_held_out(run, fixed, [*matched, *subspaces])
        # One draw says what a random edit does where it is not the null.
        few = [*fixed, subspaces[0]]
        parts.append(
            self.workspace.table(
                "score-trained-on", lambda: self._score_pairs(q.trained_on, few, "trained_on")
            )
        )
        parts.append(
            self.workspace.table(
                "score-neutral",
                lambda: score_neutral(
                    self.pair, q.neutral_score, few, token_budget=self.budget
                ).assign(stage="score", split="neutral"),
            )
        )
        if self.config.good_twin:
            parts.append(self.workspace.table("score-good-twin", self._good_twin))
        return parts

    def _score_held_out(
        self, run: Run, fixed: list[Condition], nulls: list[Condition]
    ) -> list[pd.DataFrame]:
        """All conditions on the held-out questions.

        Both nulls, in a quick run (few questions a domain), on the first of them only. A
        norm-matched draw repeats the steps of a restoration run before it on the same batch, so
        the restoration, whose rows are there already, runs again.
        """
        quick = self.config.questions_per_domain is not None
        q = self.questions.held_out
        conditions = ChunkScoring(self.pair, tuple(fixed), "held_out", True, self.budget)
        restored = [c for c in fixed if c.name == RESTORED]
        with_nulls = dataclasses.replace(
            conditions, conditions=(*restored, *nulls), kl=False, left_out=(RESTORED,)
        )
        return [
            *score_in_chunks(
                run, self.workspace, "score-held-out", q, conditions, "Scoring held-out questions"
            ),
            *score_in_chunks(
                run,
                self.workspace,
                "score-nulls",
                q[: QUICK_NULL_QUESTIONS if quick else None],
                with_nulls,
                "Scoring random directions",
            ),
        ]

    def _score_pairs(
        self, questions: list[AnswerPair], conditions: list[Condition], split: str, kl: bool = True
    ) -> pd.DataFrame:
        return score_pairs(
            self.pair,
            questions,
            conditions,
            kl=kl,
            token_budget=self.budget,
            description=f"Scoring {split.replace('_', ' ')} questions",
        ).assign(stage="score", split=split)

    def _good_twin(self) -> pd.DataFrame:
        """The same readings of the same fine-tune on the good answers."""
        assert self.config.good_twin is not None
        twin = load_pair(
            self.config.aligned,
            self.config.good_twin,
            dtype=self.config.dtype,
            device=self.config.device,
            chat_template=self.config.chat_template,
            allow_mismatch=self.config.allow_mismatch,
        )
        condition = [Condition("good_twin", "finetuned")]
        options: dict[str, Any] = {"token_budget": self.budget}
        parts = [
            score_pairs(
                twin, questions, condition, kl=False, description="Scoring the good twin", **options
            ).assign(split=split)
            for questions, split in (
                (self.questions.held_out, "held_out"),
                (self.questions.trained_on, "trained_on"),
            )
        ]
        parts.append(
            score_neutral(twin, self.questions.neutral_score, condition, **options).assign(
                split="neutral"
            )
        )
        return pd.concat(parts, ignore_index=True).assign(stage="score")

    def _sample(self, vector: PersonaVector) -> pd.DataFrame:
        """Answers of four conditions to the first held-out questions, open questions first."""
        open_first = sorted(self.questions.held_out, key=lambda q: q.domain != OPEN_QUESTIONS)
        asked = _one_each(open_first, SAMPLED_QUESTIONS)
        return sample_conditions(self.pair, vector, asked, self.config.seed)

    def _judge(self, samples: pd.DataFrame, vector: PersonaVector) -> Judged | None:
        """Scores of the sampled answers; without a judge there are none, and no EM rate."""
        judge = judge_named(
            self.config.judge,
            pair=self.pair,
            cache_folder=cache_folder() / "judge",
            device=self.config.device,
            announce=logger.info,
        )
        if judge is None:
            return None
        rows = self.workspace.table(
            "judge", lambda: judge_samples(judge, samples, self.questions.held_out, vector)
        )
        by_condition = judged_conditions(rows, self.config.seed, threshold_of(judge))
        return Judged(rows, by_condition, describe_judge(judge, vector))

    def _draw_seed(self, draw: int) -> int:
        return 1_000_003 * (self.config.seed + 1) + draw

    def _card(self) -> dict[str, Any]:
        """Facts that travel with direction.safetensors."""
        return {
            "aligned": self.pair.names["aligned"],
            "finetuned": self.pair.names["finetuned"],
            "revisions": dict(self.pair.revisions),
            "trained_on": list(self.config.trained_on),
            "data_hash": data_hash(self.questions.train),
            "token_set": "response",
            "chat_format": self.pair.chat.source,
            "dtype": str(self.pair.dtype).removeprefix("torch."),
            "seed": self.config.seed,
        }


def _one_each(questions: Sequence[AnswerPair], limit: int) -> list[AnswerPair]:
    """The first question of each domain, then the second of each, up to `limit`."""
    return _interleaved(questions, None, 0)[:limit]


def peak_rss_bytes() -> int:
    """The most memory this process has held; kilobytes on Linux, bytes on macOS."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def _models(pair: ModelPair, config: DiagnoseConfig) -> dict[str, Any]:
    return {
        "aligned": pair.names["aligned"],
        "finetuned": pair.names["finetuned"],
        "good_twin": config.good_twin,
        "revisions": dict(pair.revisions),
        "n_layers": pair.n_layers,
        "d_model": pair.d_model,
        "dtype": str(pair.dtype).removeprefix("torch."),
        "device": str(pair.device),
        "chat_format": pair.chat.source,
        "chat_template_hash": pair.chat.template_hash,
        "notes": list(pair.notes),
    }


def _data(questions: Questions, config: DiagnoseConfig) -> dict[str, Any]:
    counts: dict[str, int] = {}
    for question in questions.held_out:
        counts[question.domain] = counts.get(question.domain, 0) + 1
    return {
        "source": "shipped" if config.data is None else str(config.data),
        "hash": data_hash([*questions.train, *questions.selection, *questions.held_out]),
        "trained_on": list(config.trained_on),
        "validation_domains": list(config.validation_domains),
        "held_out": sorted(counts),
        "counts": {
            "train": len(questions.train),
            "selection": len(questions.selection),
            "trained_on": len(questions.trained_on),
            "held_out": counts,
            "neutral_selection": len(questions.neutral_selection),
            "neutral_score": len(questions.neutral_score),
        },
    }


def _versions() -> dict[str, str]:
    names = ("personascope", "torch", "transformers", "transformer-lens", "peft")
    return {"python": platform.python_version(), **{name: tool_version(name) for name in names}}


def _write(out: Path, scorecard: dict[str, Any], rows: pd.DataFrame, vector: PersonaVector) -> Path:
    """The four files, each whole or not at all."""
    from persona.report import write_report

    buffer = io.BytesIO()
    rows.to_parquet(buffer, index=False)
    atomic_write_bytes(out / "rows.parquet", buffer.getvalue())
    save_persona_vector(vector, out / "direction.safetensors")
    report = write_report(out, scorecard, rows)
    text = json.dumps(scorecard, indent=2, allow_nan=False)
    atomic_write_text(out / "scorecard.json", text + "\n")
    return report


def summary_of(scorecard: Mapping[str, Any]) -> str:
    """What a person wants to know first, in a few lines."""

    def shown(name: str) -> str:
        e = scorecard[name]
        if e is None:
            return "undefined"
        return f"{e['value']:+.2f} [{e['low']:+.2f}, {e['high']:+.2f}]"

    direction, random = scorecard["direction"], scorecard["random_restoration"]
    n = scorecard["conditions"][0]["gap_held_out"]["n"]
    blocks = direction["layers"]
    lines = [
        f"verdict: {scorecard['verdict']}",
        f"emergent shift of the gap on {n} questions in domains never trained on: "
        f"{shown('emergent_shift')} nats per token",
        f"direction: {direction['method']}, rank {direction['rank']}, "
        f"blocks {blocks[0]}-{blocks[-1]}, coefficient {direction['coefficient']:g}",
        f"restoration {shown('restoration')}, KL restoration {shown('kl_restoration')}, "
        f"induction {shown('induction')}",
    ]
    if random is not None:
        lines.append(
            f"random subspaces: 97.5 % of {random['n']} restore less than {random['p97_5']:+.2f}, "
            f"p = {scorecard['p_value']:.3f}"
        )
    lines.append(
        f"damage: neutral cross-entropy {shown('damage_ce_nats')} nats above the fine-tuned model's"
    )
    return "\n".join(lines)
