//! Honesty: what a run could not see it does not take for gone, and it says so. One module for each promise, numbered as
//! `docs/operations.md` lists them; each on a real Neo4j, and through the program where its exit code is what is promised.

mod clusters;
mod each_endpoint;
mod endpoints;
mod estate;
mod guard;
mod guests;
mod nodes;
mod retries;
mod rights;
