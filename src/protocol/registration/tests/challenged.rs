//! Registrations of a TPM: a challenge before, a key after, and what happens when either is no good.

use super::adversaries::{exhaust, repertoire};
use super::*;

/// A key as the service sends it: five parts, and their content is the TPM's business.
const KEY: &str = "AAFBAAFCAAFDAAFEAAFF";

fn tpm() -> Policy {
    Policy { challenged: true, ..policy(&[Via::Https], 60) }
}

fn play_with_key(policy: Policy, transcript: &str) {
    let state = format!(r#""registrationState":{{"assignedHub":"h.net","deviceId":"d","tpm":{{"authenticationKey":"{KEY}"}}}}"#);
    let transcript = transcript
        .replace(
            "CHALLENGE",
            &format!(r#"401 {{"message":"Unauthorized","authenticationKey":"{KEY}","keyName":"registration"}}"#),
        )
        .replace("ASSIGNED", &format!(r#"200 {{"operationId":"4.d","status":"assigned",{state}}}"#))
        .replace("ASSIGNING", r#"202 {"operationId":"4.d","status":"assigning"}"#);
    play(policy, &transcript);
}

#[test]
fn a_tpm_is_challenged_and_gets_its_key_on_one_connection() {
    play_with_key(
        tpm(),
        "> connect https
         > challenge
         < CHALLENGE
         = answered
         > register
         < ASSIGNING
         pause 2
         > query 4.d
         < ASSIGNED
         = imported
         = assigned h.net d",
    );
}

#[test]
fn a_key_that_the_tpm_does_not_take_means_another_registration_and_the_third_is_the_end() {
    play_with_key(
        tpm(),
        "> connect https
         > challenge
         < CHALLENGE
         ! nonsense made for another endorsement key
         pause ..1
         > connect https
         > challenge
         < CHALLENGE
         = answered
         > register
         < ASSIGNED
         ! nonsense damaged
         pause ..2
         > connect https
         > challenge
         < CHALLENGE
         = answered
         > register
         < ASSIGNED
         ! nonsense damaged
         = gave-up peer",
    );
}

#[test]
fn a_hub_without_its_key_is_registered_for_again() {
    let without = r#"< 200 {"operationId":"4.d","status":"assigned","registrationState":{"assignedHub":"h.net","deviceId":"d"}}"#;
    let registration = format!("> connect https\n> challenge\n< CHALLENGE\n= answered\n> register\n{without}\n");
    play_with_key(tpm(), &format!("{registration}pause ..1\n{registration}pause ..2\n{registration}= gave-up peer"));
}

#[test]
fn a_challenge_without_a_key_is_a_refusal() {
    play_with_key(
        tpm(),
        r#"> connect https
           > challenge
           < 401 {"errorCode":401000,"message":"Unauthorized"}
           = gave-up unauthorized"#,
    );
    play_with_key(
        tpm(),
        r#"> connect https
           > challenge
           < 404 {"errorCode":404201,"message":"Not found."}
           = gave-up refused"#,
    );
}

#[test]
fn what_is_no_challenge_is_nonsense_and_the_third_is_the_end() {
    for answer in ["200 {}", r#"202 {"operationId":"4.d","status":"assigning"}"#, r#"401 {"authenticationKey":"AAAA"}"#] {
        play_with_key(
            tpm(),
            &format!(
                "> connect https
                 > challenge
                 < {answer}
                 pause ..1
                 > connect https
                 > challenge
                 < {answer}
                 pause ..2
                 > connect https
                 > challenge
                 < {answer}
                 = gave-up peer"
            ),
        );
    }
}

#[test]
fn an_answer_that_has_grown_old_is_made_anew_once() {
    let refused = r#"< 401 {"errorCode":401000,"message":"Unauthorized"}"#;
    play_with_key(
        tpm(),
        &format!(
            "> connect https
             > challenge
             < CHALLENGE
             = answered
             > register
             < ASSIGNING
             pause 2
             > query 4.d
             {refused}
             > challenge
             < CHALLENGE
             = answered
             > register
             {refused}
             = gave-up unauthorized"
        ),
    );
}

#[test]
fn a_tpm_that_fails_ends_the_registration() {
    play_with_key(
        tpm(),
        "> connect https
         > challenge
         < CHALLENGE
         ! tpm it is locked
         = gave-up tpm",
    );
}

#[test]
fn a_lost_register_call_is_repeated_with_the_same_answer() {
    play_with_key(
        tpm(),
        "> connect https
         > challenge
         < CHALLENGE
         = answered
         > register
         ! reply silence
         pause ..1
         > connect https
         > register
         < ASSIGNED
         = imported
         = assigned h.net d",
    );
}

#[test]
fn an_adversary_who_challenges_is_survived() {
    let key = crate::protocol::AuthenticationKey::parse(KEY).unwrap();
    for said in repertoire() {
        let challenging = |exchange: &Exchange| match exchange.request() {
            Request::Challenge => Ok(Reply::Challenged(key.clone())),
            Request::Register | Request::Query(_) => said.clone(),
        };
        let (_, exchanges) = exhaust(Policy { patience: Duration::from_secs(600), ..tpm() }, challenging);
        assert!(exchanges <= 902, "{exchanges} exchanges in 600 s against {said:?}");
    }
}
