"""AdamW in parameter groups, and the learning rate as a pure function of step and progress."""

import math

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from longlode.mixers import ParameterRule, rules_of
from longlode.parallel.world import ALONE, World
from longlode.train.recipe import OptimSection
from longlode.train.sharding import whole


def build_optimizer(model: PreTrainedModel, optim: OptimSection) -> torch.optim.AdamW:
    """Make AdamW over the model's trainable parameters, in groups by weight decay and learning rate.

    Mixers define the treatment of their parameters (`Mixer.parameter_rules`). Elsewhere matrices decay, except
    embeddings and the output matrix unless `optim.decay_embeddings`. A group's "lr_scale" is its factor on the run's
    learning rate, "decays" its part in weight decay. Source: AdamW, arXiv 1711.05101.
    """
    rules = rules_of(model)
    vocabulary = _vocabulary_matrices(model)
    groups: dict[ParameterRule, list[nn.Parameter]] = {ParameterRule(True): [], ParameterRule(False): []}
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        is_matrix = parameter.ndim == 2 and (optim.decay_embeddings or id(parameter) not in vocabulary)
        groups.setdefault(rules.get(id(parameter), ParameterRule(is_matrix)), []).append(parameter)
    used = [
        {
            "params": parameters,
            "weight_decay": optim.weight_decay if rule.decays else 0.0,
            "lr": optim.lr * rule.lr_scale,
            "lr_scale": rule.lr_scale,
            "decays": rule.decays,
        }
        for rule, parameters in groups.items()
        if parameters
    ]
    return torch.optim.AdamW(used, lr=optim.lr, betas=optim.betas, eps=optim.eps, fused=True)


def _vocabulary_matrices(model: PreTrainedModel) -> set[int]:
    """Return the `id`s of the embedding matrices and of the output matrix."""
    found = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    head = model.get_output_embeddings()
    return found | ({id(head.weight)} if head is not None else set())


def learning_rate(optim: OptimSection, step: int, progress: float) -> float:
    """Compute the learning rate of step `step` (from 0) when `progress` (0 to 1) of the run is done.

    The rate is warm-up(step) * schedule(progress). The first is (step + 1) / warmup_steps up to 1; the second goes
    from lr to lr * min_lr_ratio by half a cosine, or by a straight line over the last decay_fraction (wsd),
    or stays constant.
    """
    progress = min(max(progress, 0.0), 1.0)
    if optim.schedule == "constant":
        fallen = 0.0
    elif optim.schedule == "cosine":
        fallen = 0.5 - 0.5 * math.cos(math.pi * progress)
    else:
        fallen = max(0.0, 1.0 - (1.0 - progress) / optim.decay_fraction)
    warm = min(1.0, (step + 1) / optim.warmup_steps) if optim.warmup_steps else 1.0
    return optim.lr * warm * (1.0 - (1.0 - optim.min_lr_ratio) * fallen)


def gradient_norm(model: nn.Module) -> Tensor:
    """Compute the L2 norm of all gradients together, a scalar tensor; not finite if any of them is not."""
    return whole(torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]))


def clip_gradients(model: nn.Module, norm: Tensor, max_norm: float | None) -> None:
    """Scale all gradients so that their norm, now `norm`, is at most `max_norm`; None leaves them unchanged."""
    if max_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(model.parameters(), max_norm, norm)


def all_ranks_finite(*values: Tensor, world: World = ALONE) -> bool:
    """Return True if all `values` are finite on every rank."""
    finite = all(bool(torch.isfinite(value).all()) for value in values)
    return world.agree([float(not finite)]) == [0.0]
