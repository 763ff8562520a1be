"""From a recipe and shards to a trained model: wires packing's batches to the training loop."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longlode.cli.console import note, progress
from longlode.core.batch import Batch
from longlode.core.errors import ConfigError, InputError
from longlode.core.records import read_record

if TYPE_CHECKING:
    from longlode.train import Recipe, TrainSummary


def run_training(
    recipe: "Recipe",
    out: Path,
    *,
    resume: bool = False,
    verify: bool | None = None,
    label: str = "training",
) -> "TrainSummary":
    """Train by `recipe` on its shards into the run folder `out`, with a progress bar.

    Args: verify: compare the checksums of the shards with their files; None: once a run.
    Raises: ConfigError when the recipe names no shards; InputError when a side of the split has too little data;
      what `train.train` and `packing.open_shards` raise.
    """
    from longlode.packing import batches, open_shards
    from longlode.train import build_model, train

    data = recipe.data
    if not data.shards:
        raise ConfigError(
            "The recipe names no shards; make some with longlode pack, then add --set data.shards=FOLDER."
        )
    folders = [data.shards] if isinstance(data.shards, str) else data.shards
    data_facts = _data_facts(folders, _verified_shards(out) if resume else None, verify)
    shards = open_shards(folders, verify=data_facts.pop("verify"))

    def stream(split: str, start_step: int = 0) -> Iterator[Batch]:
        return batches(
            shards,
            length=data.length,
            batch_size=data.batch_size,
            seed=recipe.run.seed,
            start_step=start_step,
            packed=data.packed,
            heldout_fraction=data.heldout_fraction,
            split=split,
        )

    # Both sides are asked for a batch before anything is made: a run must not fail for want of data at its end.
    for split in ("train", "heldout") if data.heldout_fraction else ("train",):
        next(stream(split))
    model = build_model(recipe, shards.vocab_size, eos_token_id=shards.eos_id)
    with progress(label) as update:

        def tell(row: dict[str, float]) -> None:
            speed = f"loss {row['loss']:.3f}, {row['tokens_per_second']:,.0f} tokens/s"
            update(int(row["step"]), recipe.num_steps or 0, f"steps: {speed}")

        return train(
            model,
            lambda step: stream("train", step),
            recipe,
            out,
            data_fingerprint=shards.fingerprint,
            resume=resume,
            heldout=(lambda: stream("heldout")) if data.heldout_fraction else None,
            tokenizer_folder=shards.tokenizer_folder,
            on_step=tell,
            data_facts=data_facts,
        )


def _data_facts(folders: list[str], known: list[str] | None, verify: bool | None) -> dict[str, Any]:
    """What the run's record says of its shards, and whether to `verify` them now.

    Args: known: the shards that an earlier session of the run has verified; verify: as in `run_training`.
    """
    paths = [str(Path(folder).resolve()) for folder in folders]
    is_known = known == paths
    if verify is None:
        verify = not is_known
    if verify:
        note("Verifying the checksums of the shards.")
    return {"shards": paths, "verified": verify or is_known, "verify": verify}


def _verified_shards(run: Path) -> list[str] | None:
    """The shards of which the record of a run says that their checksums were right; None without such a record."""
    try:
        data = read_record(run, "run").get("data", {})
    except InputError:  # no record yet, or another folder, of which `train` says more
        return None
    return data.get("shards") if data.get("verified") else None
