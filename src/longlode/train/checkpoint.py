"""Checkpoints, each complete or ignored.

    checkpoints/step-00000100/   model.safetensors   parameters and buffers
                                 optim.safetensors   AdamW's moments, torch's random state
                                 state.json          step, tokens, recipe, data fingerprint
                                 manifest.json       size and sha256 of the other three; written last

A save fills a hidden folder, syncs every file, writes the manifest, renames the folder. Only a folder whose
manifest agrees with its files is used, so a kill at any moment leaves the older checkpoints intact.
Nothing is pickled.
"""

import os
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from longlode.core.errors import CheckpointError, InputError
from longlode.core.fingerprints import file_sha256
from longlode.core.records import read_json, sync_folder, versions, write_json
from longlode.parallel.world import ALONE, World
from longlode.train.recipe import Recipe, recipe_changes
from longlode.train.sharding import is_sharded, like, whole

_FORMAT = 1
_MODEL, _OPTIM, _STATE, _MANIFEST = "model.safetensors", "optim.safetensors", "state.json", "manifest.json"
_STEP_FOLDER = re.compile(r"step-(\d{8,})")
_UNFINISHED = ".unfinished-"
_RANDOM = "random."


@dataclass
class RunState:
    """Progress of a run: the loop's state besides weights, moments and random state."""

    step: int = 0
    """Number of steps done; also the position in the data."""
    tokens: int = 0
    """Number of label tokens read."""
    seconds: float = 0.0
    """Time in the loop in seconds, over all sessions of the run."""
    skips: int = 0
    """Number of steps left out: not finite, or a spike."""
    recent: list[tuple[float, float]] = field(default_factory=list)
    """Loss and gradient norm of the newest steps of the stage, by which a spike is known."""
    skill_it: dict[str, Any] = field(default_factory=dict)
    """State of `SkillIt`, {} without it."""


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: RunState,
    identity: dict[str, Any],
    world: World = ALONE,
) -> Path:
    """Save one checkpoint below `folder`, read it back and return its path. All ranks call it; rank 0 writes.

    Args: identity: the value that `check_identity` compares on resume, from `run_identity`.
    Raises: CheckpointError if it cannot be written or does not verify; older checkpoints are not touched.
    """
    weights = _model_tensors(model)
    others = _optimizer_tensors(model, optimizer) | _random_tensors(world)
    return Path(world.on_main(lambda: str(_write(folder, weights, others, state, identity))))


def _write(
    folder: Path,
    weights: dict[str, Tensor],
    others: dict[str, Tensor],
    state: RunState,
    identity: dict[str, Any],
) -> Path:
    path = folder / f"step-{state.step:08d}"
    unfinished = folder / f"{_UNFINISHED}{path.name}"
    try:
        remove_unfinished(folder)
        unfinished.mkdir(parents=True)
        save_file(weights, unfinished / _MODEL)
        save_file(others, unfinished / _OPTIM)
        write_json(unfinished / _STATE, {**asdict(state), **identity, "made_with": versions()})
        files = {name: _sync_and_describe(unfinished / name) for name in (_MODEL, _OPTIM, _STATE)}
        write_json(unfinished / _MANIFEST, {"format": _FORMAT, "step": state.step, "files": files})
        unfinished.rename(path)
        sync_folder(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise CheckpointError(
            f"Checkpoint {path} could not be written: {error}. Older checkpoints in {folder} are untouched; "
            "make room or repair the disk, then continue with --resume."
        ) from error
    if problem := find_problem(path):
        raise CheckpointError(
            f"Checkpoint {path} was written but reads back wrong: {problem}. Repair the disk."
        )
    return path


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints. Call it only after the newest has verified."""
    for path in checkpoint_folders(folder)[keep:]:
        shutil.rmtree(path)


def remove_unfinished(folder: Path) -> None:
    """Remove unfinished folders of killed saves."""
    for path in folder.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(path)


def set_aside_newer(folder: Path, step: int) -> None:
    """Rename checkpoints newer than `step`, which did not verify, to unusable-*, so that none counts as kept."""
    for path in checkpoint_folders(folder):
        if _step_of(path) > step:
            unusable = path.with_name(f"unusable-{path.name}")
            shutil.rmtree(unusable, ignore_errors=True)
            path.rename(unusable)


def checkpoint_folders(folder: Path) -> list[Path]:
    """List checkpoint folders below `folder`, newest step first, verified or not."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if path.is_dir() and _STEP_FOLDER.fullmatch(path.name)]
    return sorted(found, key=_step_of, reverse=True)


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def newest_checkpoint(folder: Path) -> tuple[Path | None, list[str]]:
    """Find the newest checkpoint that verifies, with one line of reason for each newer one that does not.

    Raises: CheckpointError if there are checkpoints and none verifies: starting over would be a silent loss.
    """
    skipped: list[str] = []
    for path in checkpoint_folders(folder):
        problem = find_problem(path)
        if problem is None:
            return path, skipped
        skipped.append(f"{path.name}: {problem}")
    if skipped:
        raise CheckpointError(
            f"No checkpoint in {folder} can be used:\n  "
            + "\n  ".join(skipped)
            + "\nTo start over, give a new run folder."
        )
    return None, skipped


def find_problem(path: Path) -> str | None:
    """Return the fault of the checkpoint at `path`, or None if every file is as its manifest says."""
    try:
        manifest = read_json(path / _MANIFEST)
        if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
            return f"{_MANIFEST} is not of format {_FORMAT}"
        files = manifest["files"]
        for name in (_MODEL, _OPTIM, _STATE):
            size = (path / name).stat().st_size
            if size != files[name]["bytes"]:
                return f"{name} has {size} bytes, the manifest says {files[name]['bytes']}"
            if file_sha256(path / name) != files[name]["sha256"]:
                return f"{name} is not what was written (its sha256 differs)"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except InputError as error:
        return str(error)
    except (KeyError, TypeError):
        return f"{_MANIFEST} does not name {_MODEL}, {_OPTIM} and {_STATE}"
    except OSError as error:
        return f"it cannot be read ({error})"
    return None


def run_identity(recipe: Recipe, data_fingerprint: str, num_ranks: int = 1) -> dict[str, Any]:
    """Return the identity of a run: fixed recipe keys and data, saved in state.json and compared on resume.

    Args: num_ranks: of the session that saves, for the record; a run may resume on another number.
    """
    return {
        "recipe": recipe.resolved(),
        "recipe_fingerprint": recipe.fingerprint(),
        "data_fingerprint": data_fingerprint,
        "world": {"ranks": num_ranks},
    }


def check_identity(path: Path, recipe: Recipe, data_fingerprint: str) -> None:
    """Check that a checkpoint is of this recipe and data. Raises: CheckpointError that names the differences."""
    saved = read_json(path / _STATE)
    if changes := recipe_changes(saved["recipe"], recipe.resolved()):
        raise CheckpointError(
            f"The recipe is not the one of {path} (checkpoint -> recipe):\n  "
            + "\n  ".join(changes)
            + "\nSet these keys back to resume, or give a new run folder to start over."
        )
    if saved["data_fingerprint"] != data_fingerprint:
        raise CheckpointError(
            f"The data is not that of {path}: got {data_fingerprint}, expected {saved['data_fingerprint']}. "
            "Give the shards that the run began with, or a new run folder."
        )


def load_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, rank: int = 0
) -> RunState:
    """Restore weights, moments and torch's random state, and return the run's progress.

    Every rank reads the files, whatever the number of ranks that they were saved on.
    Raises: CheckpointError if the names or shapes of the weights are not the model's.
    """
    try:
        weights = load_file(path / _MODEL)
        if is_sharded(model):
            own = model.state_dict(keep_vars=True)
            weights = {name: like(value, own[name]) for name, value in weights.items()}
        mismatch = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise CheckpointError(f"{path / _MODEL} does not fit this model: {error}.") from None
    wrong = set(mismatch.missing_keys) & set(_model_tensors(model)) | set(mismatch.unexpected_keys)
    if wrong:
        raise CheckpointError(
            f"{path / _MODEL} does not fit this model; names that differ: {sorted(wrong)[:8]}."
        )
    tensors = load_file(path / _OPTIM)
    saved = read_json(path / _STATE)
    _load_random(
        {name: tensor for name, tensor in tensors.items() if name.startswith(_RANDOM)}, rank, saved["step"]
    )
    parameters = dict(model.named_parameters())
    optimizer.state.clear()
    for key, tensor in tensors.items():
        kind, _, name = key.partition(".")
        if not key.startswith(_RANDOM):
            optimizer.state[parameters[name]][kind] = like(tensor, parameters[name])
    recent = [(loss, norm) for loss, norm in saved.get("recent", ())]
    counts = (saved["step"], saved["tokens"], saved["seconds"], saved["skips"])
    return RunState(*counts, recent, saved.get("skill_it", {}))


def _model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by name; a tensor with two names (tied weights) is listed under the first."""
    seen: set[int] = set()
    tensors = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[name] = whole(tensor.detach()).contiguous()
    return tensors


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's tensors, named "<moment>.<parameter name>"."""
    return {
        f"{kind}.{name}": whole(tensor).contiguous()
        for name, parameter in model.named_parameters()
        for kind, tensor in optimizer.state.get(parameter, {}).items()
    }


def _random_tensors(world: World) -> dict[str, Tensor]:
    """Return the random states of all ranks: "random.cpu" of rank 0, "random.cpu.1" of rank 1 ..."""
    own = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        own["cuda"] = torch.cuda.get_rng_state()
    return {
        _random_name(kind, rank): state
        for kind, mine in own.items()
        for rank, state in enumerate(world.gather(mine))
    }


def _random_name(kind: str, rank: int) -> str:
    return f"{_RANDOM}{kind}" + (f".{rank}" if rank else "")


def _load_random(states: dict[str, Tensor], rank: int, step: int) -> None:
    if (name := _random_name("cpu", rank)) in states:
        torch.set_rng_state(states[name])
    else:  # a rank that the run did not have so far
        torch.manual_seed((step << 20) + rank)
    if (name := _random_name("cuda", rank)) in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states[name])


def _sync_and_describe(path: Path) -> dict[str, Any]:
    """Force a file to disk and return its manifest entry."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
    return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
