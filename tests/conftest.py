"""Small models gain nothing from several threads, and test files run beside each other: one thread each."""
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
