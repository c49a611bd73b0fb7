"""The depth-recurrent network, its halting criteria, its codecs and the bundle they ship in.

Letters in shape comments, used everywhere in this project:

    B   rows of a batch (one row is one problem)
    N   tokens of a problem, padding included (graph nodes, characters, words)
    D   width of the latent state
    H   attention heads
    C   classes of the readout
    S   scores a step computes
"""
