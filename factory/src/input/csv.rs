//! Identities as a table: the lines of `dps-agent identity --csv`, with or without the line of column names before them.

use std::sync::Arc;

use super::Place;
use super::raw::Raw;

/// The columns of a table that does not name them.
const COLUMNS: [&str; 7] =
    ["registrationId", "attestation", "endorsementKey", "storageRootKey", "sha1Thumbprint", "sha256Thumbprint", "certificate"];

/// Every identity of a text, in its order. Column names may stand again further down, where files were joined.
pub fn records(file: &Arc<str>, text: &str) -> Vec<Result<Raw, String>> {
    let mut columns: Vec<String> = COLUMNS.map(str::to_owned).to_vec();
    let mut records = Vec::new();
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).flexible(true).trim(csv::Trim::All).from_reader(text.as_bytes());
    for line in reader.records() {
        let line = match line {
            Ok(line) => line,
            Err(error) => {
                let at = error.position().map_or(1, csv::Position::line);
                records.push(Err(format!("{file}:{at}: not CSV: {error}")));
                continue;
            }
        };
        let place = Place { file: Arc::clone(file), line: number(&line) };
        let names = line.get(0).is_some_and(|first| first.trim_start_matches('\u{feff}').eq_ignore_ascii_case("registrationId"));
        if names {
            columns = line.iter().map(|name| name.trim_start_matches('\u{feff}').to_owned()).collect();
        } else if line.len() > columns.len() {
            let (has, names) = (line.len(), columns.len());
            records.push(Err(format!("{place}: {has} values for {names} columns; a comma too much?")));
        } else {
            records.push(Ok(record(place, &columns, &line)));
        }
    }
    records
}

fn number(line: &csv::StringRecord) -> usize {
    line.position().map_or(1, |position| usize::try_from(position.line()).unwrap_or(usize::MAX))
}

fn record(place: Place, columns: &[String], line: &csv::StringRecord) -> Raw {
    let text = |name: &str| {
        let column = columns.iter().position(|column| column.eq_ignore_ascii_case(name))?;
        line.get(column).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    Raw {
        registration_id: text("registrationId"),
        device_id: text("deviceId"),
        attestation: text("attestation"),
        certificate: text("certificate"),
        sha256: text("sha256Thumbprint"),
        endorsement_key: text("endorsementKey"),
        ..Raw::at(place)
    }
}
