# What a process can really reach: run in the agent's place, in its sandbox, and once without it. Prints one finding a line.
use strict;
use warnings;
use filetest 'access';

# Paths that can be written, as access(2) has it: a read-only mount counts.
my @directories = ('/');
while (defined(my $directory = shift @directories)) {
    opendir(my $entries, $directory) or next;
    for my $name (sort grep { $_ ne '.' && $_ ne '..' } readdir $entries) {
        my $path = ($directory eq '/' ? '' : $directory) . "/$name";
        next if -l $path || $path eq '/proc';
        if (-w $path) { print "writable $path\n"; next }
        push @directories, $path if -d $path;
    }
}
for my $path ('/proc/sys/kernel/hostname', '/proc/sysrq-trigger', '/proc/1/environ', '/proc/kmsg') {
    if (open(my $file, $path =~ /environ|kmsg/ ? '<' : '>>', $path)) { print "opened $path\n" }
}

# Address families: any error but EAFNOSUPPORT (97) shows that the kernel was asked.
my %families;
for my $family (1 .. 45) {
    for my $type (1, 2, 3, 5) {
        $families{$family} = 1 if socket(my $socket, $family, $type, 0) || ($! != 97 && $! != 1);
    }
}
print "family $_\n" for sort { $a <=> $b } keys %families;

# System calls that a process without privileges may try: with arguments that are refused for another reason than EPERM (1).
my %calls = (
    ptrace => [101, 99, 0, 0, 0], setns => [308, -1, 0], unshare => [272, 0x7fffffff], keyctl => [250, 9999, 0, 0, 0, 0],
    add_key => [248, 0, 0, 0, 0, 0], process_vm_readv => [310, 0, 0, 0, 0, 0, 1], io_uring_setup => [425, 0, 0],
    memfd_create => [319, 0, 0], personality => [135, 0x0008], sched_setaffinity => [203, 0, 0, 0], setpriority => [141, 9, 0, 0],
    setrlimit => [160, 99, 0], mlock => [149, 0, 0], capset => [126, 0, 0], mknod => [133, 0, 0, 0], quotactl => [179, -1, 0, 0, 0],
    name_to_handle_at => [303, -1, 0, 0, 0, 0], fanotify_mark => [301, -1, 0, 0, -1, 0], timer_create => [222, 99, 0, 0],
    chown => [92, 0, 0, 0], getpid => [39],
);
die 'this list is for x86-64' if (`uname -m` // '') !~ /^(x86_64)?$/;
for my $name (sort keys %calls) {
    my ($number, @arguments) = @{ $calls{$name} };
    $! = 0;
    my $result = syscall($number, @arguments);
    print "call $name\n" unless $result == -1 && $! == 1;
}
