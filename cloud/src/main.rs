//! Cloud.
fn main(){}
