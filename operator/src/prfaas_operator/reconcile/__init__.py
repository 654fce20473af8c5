"""One module for each kind of object: read what is, compute what should be, write the difference, report."""
