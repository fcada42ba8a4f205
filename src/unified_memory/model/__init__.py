"""What things are: the words of the service, with no I/O and no framework."""
