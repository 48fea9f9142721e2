import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Properties;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;
import org.apache.flink.table.api.TableResult;

/**
 * Runs one file of Flink SQL on a cluster inside this process, until the job ends or the process is stopped.
 *
 * In: a properties file with Flink's options, a file of statements that each end with a semicolon at the end of a
 * line. Out: what the last statement does; "running" on standard output once it does. On failure: the exception, and
 * exit code 1.
 */
public final class FlinkJob {
    public static void main(String[] arguments) {
        try {
            run(Path.of(arguments[0]), Path.of(arguments[1]));
        } catch (Throwable error) {
            error.printStackTrace();
            System.exit(1); // threads of the cluster would keep the process
        }
        System.exit(0);
    }

    private static void run(Path optionsFile, Path job) throws Exception {
        Properties options = new Properties();
        try (InputStream in = Files.newInputStream(optionsFile)) {
            options.load(in);
        }
        Configuration configuration = new Configuration();
        options.forEach((key, value) -> configuration.setString((String) key, (String) value));
        TableEnvironment tables = TableEnvironment.create(
                EnvironmentSettings.newInstance().inStreamingMode().withConfiguration(configuration).build());
        TableResult last = null;
        for (String statement : Files.readString(job).split(";\\s*\\R")) {
            if (!statement.isBlank()) {
                last = tables.executeSql(statement);
            }
        }
        System.out.println("running");
        last.await();
    }
}
