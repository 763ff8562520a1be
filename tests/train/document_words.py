"""Words of which tests make documents."""

WORDS = ["river", "captain", "letter", "garden", "winter", "window", "answer", "village", "stone", "evening"]
