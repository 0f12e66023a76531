"""The lab as its owner declares it: lab.yaml, chains, targets."""
