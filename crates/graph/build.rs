//! Has the crate built again when a migration or a query is added: the macro that includes them notices changes only of files
//! that it has seen.

fn main() {
    println!("cargo::rerun-if-changed=../../schema");
    println!("cargo::rerun-if-changed=../../queries");
}
