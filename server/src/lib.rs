//! Configuration, wiring, signals, subcommands: the binary vidar.
