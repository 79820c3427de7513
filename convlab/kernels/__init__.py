"""How the rungs are computed: implementations, the rule that chooses among them, and the one form that differentiates them."""
