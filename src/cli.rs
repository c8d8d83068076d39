//! clap structs of the command line. Layer 7.
