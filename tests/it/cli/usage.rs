//! Wrong command lines, help, and what does not exist.

use crate::support::isolated;

#[test]
fn a_command_line_that_makes_no_sense_is_exit_code_2() {
    isolated(|room| {
        for arguments in [
            &["dump"][..],
            &["dump", "zero"],
            &["restore"],
            &["what"],
            &[],
            &["dump", "1", "--kill", "--leave-stopped"],
        ] {
            room.snap(arguments).run().expect(2);
        }
    });
}

#[test]
fn help_names_every_command() {
    isolated(|room| {
        let help = room.snap(["--help"]).run().expect(0);
        for command in ["dump", "restore", "inspect", "check", "net", "demo"] {
            assert!(help.stdout.contains(command), "{command} is not in the help");
            room.snap([command, "--help"]).run().expect(0);
        }
    });
}

#[test]
fn a_pid_that_nobody_has_is_exit_code_5() {
    isolated(|room| {
        let run = room.snap(["dump", "30000"]).run().expect(5).says("30000");
        assert_eq!(room.images(), [""; 0], "{run}");
        let run = room.snap(["dump", "30000", "--json"]).run().expect(5);
        assert_eq!(run.json()["error"]["kind"], "vanished");
    });
}

#[test]
fn an_image_that_does_not_exist_is_named() {
    isolated(|room| {
        room.snap(["restore", "no-such.snap"]).run().expect(6).says("no-such.snap").says("check the name");
    });
}
