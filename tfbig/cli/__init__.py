"""The command line: the only room that knows absl. One module for each verb."""
