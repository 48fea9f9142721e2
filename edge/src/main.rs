//! Edge.
fn main(){}
