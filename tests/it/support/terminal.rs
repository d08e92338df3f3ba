//! A terminal for programs that draw on one: what they show can be read, and keys can be typed.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::support::process::{Signal, signal};

/// A program on a terminal of its own. Dropping it kills the program.
#[derive(Debug)]
pub struct Terminal {
    /// The side of whoever looks at the screen.
    outside: File,
    /// The side of the program; open, so that it can be looked at when the program has ended.
    inside: File,
    drawn: Arc<Mutex<Vec<u8>>>,
    program: Child,
}

impl Terminal {
    /// Starts `command` on a terminal of so many columns and lines.
    pub fn start(mut command: Command, (columns, lines): (u16, u16)) -> Self {
        let outside = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&outside).expect("our own terminal");
        unlockpt(&outside).expect("our own terminal");
        let name = ptsname(&outside, Vec::new()).expect("our own terminal");
        let inside = open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("our own terminal");
        let size = Winsize { ws_col: columns, ws_row: lines, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&inside, size).expect("our own terminal");
        let (outside, inside) = (File::from(outside), File::from(inside));
        let end = || inside.try_clone().expect("a descriptor");
        let program = command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("the program");
        let drawn = Arc::default();
        collect(outside.try_clone().expect("a descriptor"), Arc::clone(&drawn));
        Self { outside, inside, drawn, program }
    }

    /// Types these keys.
    pub fn type_keys(&mut self, keys: &str) {
        self.outside.write_all(keys.as_bytes()).expect("our own terminal");
    }

    /// All that was drawn, control sequences and all.
    pub fn drawn(&self) -> String {
        String::from_utf8_lossy(&self.drawn.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Sends it a signal.
    pub fn signal(&self, word: Signal) {
        signal(self.program.id(), word);
    }

    /// The exit code; `None`: it runs still.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.program.try_wait().expect("our own child")?.code()
    }

    /// Whether it is as a shell wants it: typed lines are shown, and given as a whole.
    pub fn is_as_usual(&self) -> bool {
        let modes = tcgetattr(&self.inside).expect("our own terminal").local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

fn collect(mut outside: File, drawn: Arc<Mutex<Vec<u8>>>) {
    // It ends with the terminal: then there is an error to read.
    std::thread::spawn(move || {
        let mut part = [0; 4096];
        while let Ok(n @ 1..) = outside.read(&mut part) {
            drawn.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&part[..n]);
        }
    });
}
