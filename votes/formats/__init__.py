"""The shapes in which people hold votes, one file each."""
