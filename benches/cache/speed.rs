pub fn run(_part: &str) {}
