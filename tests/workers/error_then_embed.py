"""An evaluation that is refused on the main process, and a call after it: `IMAGES RUN`."""

import sys

import selfsup

if __name__ == "__main__":
    images, run = sys.argv[1:3]
    try:
        selfsup.evaluate.knn(run, images, test=images, shots=(100,), resamples=10)
    except selfsup.UserError as error:
        print(f"refused: {error}", flush=True)
    x = selfsup.embed(run, images).x
    print(f"sum {x.double().sum().item()!r}", flush=True)
