"""How local and how shared weights are: of one layer, of all layers of a network, and where pruning has left some."""
