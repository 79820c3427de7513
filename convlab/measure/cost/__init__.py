"""What a network costs: its numbers and operations, its memory, and the width at which another costs as much."""
