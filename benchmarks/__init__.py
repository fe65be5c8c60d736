"""Every figure that the project quotes, each from one command that measures both sides in the same run."""
