//! Ratios that must hold, in `floors.toml`: the guard against regressions.

use crate::engines::OWN;
use crate::results::{Results, digits};

/// How many times better than another engine Rimstone must be in a row.
pub struct Floor {
    pub row: String,
    than: String,
    times: f64,
}

/// The table of floors.
pub fn read() -> Vec<Floor> {
    parse(include_str!("../floors.toml"))
}

fn parse(text: &str) -> Vec<Floor> {
    let table: toml::Table = text.parse().expect("a table");
    let engines = table.into_iter().filter_map(|(than, rows)| match rows {
        toml::Value::Table(rows) => Some((than, rows)),
        _ => None,
    });
    let floors = engines.flat_map(|(than, rows)| {
        rows.into_iter().map(move |(row, times)| Floor {
            row,
            than: than.clone(),
            times: number(&times),
        })
    });
    floors.collect()
}

fn number(value: &toml::Value) -> f64 {
    let number = value.as_float().or(value.as_integer().map(|n| n as f64));
    number.expect("a number")
}

/// A sentence for each floor that does not hold, or was not measured.
pub fn fallen(floors: &[Floor], results: &Results) -> Vec<String> {
    let sentence = |floor: &Floor| {
        let Floor { row, than, times } = floor;
        let ratio = results.row(row).and_then(|row| row.better(OWN, than));
        match ratio {
            None => Some(format!("{row}: not measured against {than}")),
            Some(ratio) if ratio >= *times => None,
            Some(ratio) => Some(format!(
                "{row}: {} times better than {than}, below the floor of {times}",
                digits(ratio)
            )),
        }
    };
    floors.iter().filter_map(sentence).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engines::{BASE, by_name};
    use crate::results::Unit;

    fn results(own: f64) -> Results {
        let mut results = Results::default();
        results.add("get", "get uniform", Unit::Time, OWN, own);
        results.add("get", "get uniform", Unit::Time, BASE, 300.0);
        results
    }

    #[test]
    fn a_ratio_below_its_floor_is_named() {
        let floors = parse("[lmdb]\n\"get uniform\" = 3\n\"open\" = 0.1\n");
        let fallen = |own| fallen(&floors, &results(own));
        assert_eq!(fallen(100.0), ["open: not measured against lmdb"]);
        assert_eq!(fallen(101.0).len(), 2);
        assert!(fallen(150.0)[0].contains("2.00 times better than lmdb, below the floor of 3"));
    }

    #[test]
    fn the_committed_floors_name_engines() {
        let floors = read();
        assert!(!floors.is_empty());
        assert!(floors.iter().all(|floor| by_name(&floor.than).is_some()));
        assert!(floors.iter().all(|floor| floor.times > 0.0));
    }
}
