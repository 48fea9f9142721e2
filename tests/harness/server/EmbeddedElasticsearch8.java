import org.elasticsearch.common.logging.LogConfigurator;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.env.Environment;
import org.elasticsearch.node.Node;

/**
 * One node of Elasticsearch 8: see {@link Launch}. Its jars are modules of the JVM; what speaks HTTP is a module of its own
 * kind, found in path.home.
 */
public final class EmbeddedElasticsearch8 {
    private EmbeddedElasticsearch8() {}

    public static void main(String[] arguments) throws Exception {
        Launch.run(arguments, (given, config) -> {
            Settings.Builder settings = Settings.builder();
            given.forEach((key, value) -> settings.put(key, value));
            LogConfigurator.configureESLogging();
            return new Node(new Environment(settings.build(), config)).start();
        });
    }
}
