//! Stack.
fn main(){}
