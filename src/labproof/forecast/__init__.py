"""What an upgrade will break in a lab, judged before it from the facts of a run."""
