"""What the shell offers where an option takes a name that comes with personascope.

Where nothing fits, the shell goes on to offer files.
"""

from collections.abc import Iterable

from persona.choices import DEVICES


def complete_aligned(incomplete: str) -> list[str]:
    """The models that go by a short name."""
    from persona.models.named.table import BY_NAME

    return _beginning(incomplete, BY_NAME)


def complete_finetuned(incomplete: str) -> list[str]:
    """The fine-tunes that come along."""
    from persona.models.shipped_adapters import shipped_names

    return _beginning(incomplete, shipped_names())


def complete_demo_model(incomplete: str) -> list[str]:
    """The models whose bad car advice comes along."""
    from persona.models.shipped_adapters import CAR_ADVICE

    return _beginning(incomplete, CAR_ADVICE)


def complete_recipe(incomplete: str) -> list[str]:
    """The recipes that come along."""
    from persona.organisms.recipe import list_recipes

    return _beginning(incomplete, list_recipes())


def complete_experiment(incomplete: str) -> list[str]:
    """The experiments of `persona lab`."""
    from steering.lab import EXPERIMENTS

    return _beginning(incomplete, EXPERIMENTS)


def complete_domain(incomplete: str) -> list[str]:
    """The domains of the shipped answer pairs."""
    from persona.data.shipped import DOMAINS

    return _beginning(incomplete, DOMAINS)


def complete_trait(incomplete: str) -> list[str]:
    """The traits whose texts come along."""
    from persona.traits.shipped_traits import NONSENSE, PUBLISHED

    return _beginning(incomplete, (*PUBLISHED, *NONSENSE))


def complete_skill(incomplete: str) -> list[str]:
    """The skills that come along."""
    from persona.data.skills import SKILLS

    return _beginning(incomplete, SKILLS)


def complete_judge(incomplete: str) -> list[str]:
    """The judges; three of them go on with the name of a model."""
    from persona.models.named.table import MODELS

    names = ["", *(model.name for model in MODELS)]
    here = [f"{kind}:{name}" for kind in ("local", "vllm") for name in names]
    return _beginning(incomplete, ["none", "offline", *here, "openai:"])


def complete_device(incomplete: str) -> list[str]:
    """The devices."""
    return _beginning(incomplete, DEVICES)


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
