"""longlode: find long-range dependency in text, train linear-time models on it, prove that they use it.

`import longlode` alone loads no torch. The first use of `longlode.models` registers our architectures with
transformers' Auto classes; `longlode.register()` does so explicitly.
"""

__version__ = "0.1.0"
