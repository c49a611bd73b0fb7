"""The load generator of Fathom: latency against depth, measured so that a capacity planner can rely on it.

Words used in this package, beside those of the README's glossary:

- *cell*: one stretch of steady load (a loop, a level, a depth or a mix, a repeat); everything is measured
  in cells
- *open loop*: requests start by a schedule fixed in advance; the level is a rate in requests per second
- *closed loop*: a fixed number of users, each sending its next request when the last is answered
- *due*: the intended start of a request; in open loop latency counts from here
- *late*: how long after it was due the client itself got round to a request
- *shot*, *sample*: a request before it is sent; what is known of it after it has ended
- *case*: a problem as the server takes it, with its true answer and its own terms where it has some
- *summary*: the samples of one condition, all repeats together, boiled down to figures
- *control*: the probe's requests without deep ones beside them
- *setting*, *trial*: a combination of a server's flags; what it did under one load

It stands alone: httpx, httptools, NumPy, rich, typer, pydantic and the parser of prometheus-client, and
matplotlib when pictures are drawn. It imports nothing of the service, so that it can measure any server.
"""
