"""The model card written beside every saved model: its kind, and how to load it."""

from collections.abc import Sequence
from pathlib import Path

from longlode.models.config import LonglodeConfig

_CARD = """---
library_name: transformers
pipeline_tag: {task}
tags:
- longlode
---
# A longlode model

{kind}: layers `{stack}`, width {width}, {num_params:,} parameters. Made with longlode, which loads it.

## Load it

transformers does not know this architecture by itself; `import longlode` tells it, and no code from here is run:

    pip install longlode

```python
import longlode
from transformers import {auto_class}, AutoTokenizer

folder = "PATH"  # of this folder, or its name on the hub
model = {auto_class}.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
```

Without the import transformers says that it "does not recognize this architecture"; upgrading it does not help.
Programs that load models themselves need the import too, for example lm-evaluation-harness:

    python -c "import longlode; from lm_eval.__main__ import cli_evaluate; cli_evaluate()" run \\
        --model hf --model_args pretrained=PATH,backend=causal --tasks lambada_openai
"""

# By class: the hub's name of the task, the Auto class that loads it, a description.
_TASKS = {
    "LonglodeForCausalLM": ("text-generation", "AutoModelForCausalLM", "A language model"),
    "LonglodeForSequenceClassification": (
        "text-classification",
        "AutoModelForSequenceClassification",
        "A classifier of texts",
    ),
    "LonglodeForTokenClassification": (
        "token-classification",
        "AutoModelForTokenClassification",
        "A classifier of tokens",
    ),
}
_BACKBONE = ("feature-extraction", "AutoModel", "A backbone without a head")


def write_card(folder: Path, config: LonglodeConfig, architecture: str, num_params: int) -> None:
    """Write `folder`/README.md, unless it exists: a card written by a user is never changed.

    Args: architecture: name of the model class. num_params: number of parameters, tied ones counted once.
    """
    path = folder / "README.md"
    if path.exists():
        return
    task, auto_class, kind = _TASKS.get(architecture, _BACKBONE)
    text = _CARD.format(
        task=task,
        auto_class=auto_class,
        kind=kind,
        stack=config.mixers,
        width=config.hidden_size,
        num_params=num_params,
    )
    path.write_text(text, encoding="utf-8")


def add_training(folder: Path, facts: Sequence[tuple[str, str]]) -> None:
    """Append to the card of a model how it was trained. Args: facts, (what, value); without a card nothing is written.

    What the model can do is not among them: no training measures that.
    """
    path = folder / "README.md"
    if not path.is_file():
        return
    lines = "\n".join(f"| {what} | {value} |" for what, value in facts)
    text = f"""
## How it was trained

| what | value |
|---|---|
{lines}

Nothing here says how good it is: `longlode evaluate PATH -o eval` measures it. The run's `record.json` has the whole
recipe.
"""
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")
