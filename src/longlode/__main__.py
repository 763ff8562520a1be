"""`python -m longlode`, `torchrun -m longlode`: the `longlode` command, whatever Python it was installed for."""

if __name__ == "__main__":  # worker processes import this file under another name and need nothing of it
    from longlode.cli import main

    main()
