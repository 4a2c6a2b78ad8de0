"""Threads that read and decode images while the network trains."""

from concurrent.futures import ThreadPoolExecutor

import torch


def reading_threads(count: int) -> ThreadPoolExecutor:
    """A pool of threads in each of which torch's operations take one thread.

    Operations on one image are too short to be divided, and threads that each divide theirs hold each other up. The
    number is one of the calling thread in torch built with OpenMP: the threads that train keep theirs.
    """
    return ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
