"""Choice of devices by name."""

import torch

from longlode.core.errors import BackendError


def pick_device(name: str | torch.device) -> torch.device:
    """Return the device called `name`; "auto" is CUDA if available, else the CPU.

    Raises: BackendError for an unknown name, and for a device that is not available.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        # torch's own message lists every kind of device that it knows.
        reason = "" if "Expected one of" in str(error) else f" ({str(error).splitlines()[0]})"
        raise BackendError(
            f"The device {str(name)!r} cannot be used here{reason}; expected auto, cpu, or one of "
            f"{torch.cuda.device_count()} CUDA devices (cuda, cuda:1 ...)."
        ) from None
    return device
