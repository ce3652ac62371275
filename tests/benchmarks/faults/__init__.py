"""Networks, injected faults and correct loops for the benchmark of `tfbig.parity.diagnose`."""
