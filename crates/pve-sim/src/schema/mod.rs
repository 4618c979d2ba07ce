//! What PVE's own API schema says of requests: paths, parameters, privileges. `params.json` is made of the schema by
//! `compact.py`.

mod formats;
mod named_parts;
mod table;
mod verify;

pub use formats::split_list;
pub use table::{Declared, Kind, Method, find, siblings};
pub use verify::{kind, normalize, properties, verify};
