"""The same clusters on `kind`, where Docker is there: nodes are containers, and pods are containers in them."""
