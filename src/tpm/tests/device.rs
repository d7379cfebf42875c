//! Ways to a TPM that do not lead there.

use super::*;

fn said(tcti: &str) -> TpmError {
    let settings = TpmSettings { tcti: tcti.to_owned(), ..Simulator::nowhere() };
    run(Tpm::new(settings, Auths::default()).attend(None)).unwrap_err()
}

#[test]
fn no_tpm_is_told_from_a_wrong_name_and_a_missing_library() {
    assert_eq!(said("device:/dev/no-tpm"), TpmError::Absent("device:/dev/no-tpm".to_owned()));
    for refused in ["swtpm:host=127.0.0.1,port=1", "mssim:host=127.0.0.1,port=1"] {
        assert_eq!(said(refused), TpmError::Absent(refused.to_owned()));
    }
    for wrong in ["", "wrong", "cmd:cat", "/dev/tpmrm0", "swtpm:port=x"] {
        assert_eq!(said(wrong), TpmError::UnknownTcti(wrong.to_owned()));
    }
    assert!(matches!(said("device:/dev/null"), TpmError::Broken(_)));
    assert!(matches!(said("device:/tmp"), TpmError::Broken(_)));
}
