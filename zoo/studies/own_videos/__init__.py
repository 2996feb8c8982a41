"""Does a non-local block help on videos of one's own?

    python -m zoo.studies.own_videos --data videos --groups subject \
        --folds 5 --out runs/own

Compares a network, the network with a control block of as many parameters and
the network with a non-local block, on folds that keep groups of videos (people,
recordings, places) together. README.md tells how, with an example.
"""
