"""What users may write where a model is asked for: "starter", a model folder, a training run, a hub id."""

from pathlib import Path

STARTER = "starter"


def model_source(name: str) -> str:
    """Where the model called `name` lies: the packaged starter, the model of a run folder, or `name` itself.

    Raises: InputError when the starter is asked for and this installation lacks it.
    """
    if name == STARTER:
        from longlode.models import starter_folder

        return str(starter_folder())
    exported = Path(name) / "model"
    if (exported / "config.json").is_file() and not (Path(name) / "config.json").exists():
        return str(exported)
    return name
