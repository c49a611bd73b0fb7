"""The depth-recurrent network in torch: what it sees, its one shared block, the scores of a step."""
